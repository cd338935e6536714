"""Packaging; the tools' settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "kerasdl/__init__.py").read_text()).group(1)

setup(
    name="kerasdl",
    version=VERSION,
    description="Deep-learning course architectures in Keras: trained by one command, exported",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # Every folder and every file, so that none can be forgotten
    packages=find_namespace_packages(
        include=["kerasdl", "kerasdl.*"], exclude=["*.__pycache__", "*.__pycache__.*"]
    ),
    package_data={"": ["*"]},
    entry_points={"console_scripts": ["kerasdl=kerasdl.cli:run"]},
    install_requires=[
        # Upper bounds: the loop and the base model rely on what these versions do.
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<3.16",
        "keras-cv>=0.9,<0.10",
        "keras-nlp>=0.32,<0.33",
        "huggingface_hub>=1,<3",
        "tensorflow-datasets>=4.9.10,<4.10",
        "importlib_resources",  # tensorflow-datasets needs it without saying so
        "tensorflow-serving-api>=2.21,<2.22",
        "tensorflow-text>=2.21,<2.22",
        "tokenizers>=0.23,<0.24",
        "sentencepiece>=0.2.3,<0.3",
        "sacrebleu>=2.6,<3",
        "pycocotools>=2.0.11,<3",
        "ai-edge-litert>=2.3,<3",
        "h5py",
        "ml_dtypes",
        "tensorboard>=2.20,<2.22",
        "jsonargparse>=4.53,<5",
        "docstring-parser",
        "pyyaml",
        "scikit-learn",
        "scipy",
        "pillow",
        "tqdm",
        "numpy",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "test": [
            "pytest>=8.4,<9.2",  # with 9.2 pytest-xdist 3.8 forgets which tests belong together
            "pytest-xdist",
            "playwright",  # drives the browser of TFLite files
            "ruff",
            "mediapipe>=1.2,<2",  # classifies with exported files
        ],
    },
)
