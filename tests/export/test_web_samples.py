"""Pictures in the page of an exported model: codes, noise, and noise step by step."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from kerasdl import catalog
from kerasdl.export import tflite
from kerasdl.export.exporter import export
from kerasdl.inference.runtimes import TFLite
from kerasdl.ops import diffusion
from kerasdl.store import load
from tests.export.examples import make_parts, quiet
from tests.export.pages import functions, html_of, opened

STEPS = 5
