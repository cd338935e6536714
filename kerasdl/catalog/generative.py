"""Models that make images."""

from kerasdl.catalog.entry import Paper

PAPERS = (
    Paper(
        "generative.autoencoder",
        "reconstruct",
        "Hinton and Salakhutdinov 2006",
        "https://doi.org/10.1126/science.1127647",
        {"autoencoder": 2_837_314},
    ),
    Paper(
        "generative.vae",
        "reconstruct",
        "Kingma and Welling 2013",
        "https://arxiv.org/abs/1312.6114",
        {"vae_mlp": 815_824, "vae": 1_696_097},
    ),
    Paper(
        "generative.gan",
        "adversarial",
        "Goodfellow et al. 2014",
        "https://arxiv.org/abs/1406.2661",
        {"gan_mlp": 3_735_425},
    ),
    Paper(
        "generative.dcgan",
        "adversarial",
        "Radford et al. 2015",
        "https://arxiv.org/abs/1511.06434",
        {"dcgan": 6_342_272},
    ),
    Paper(
        "generative.ddpm",
        "denoise",
        "Ho et al. 2020",
        "https://arxiv.org/abs/2006.11239",
        {"ddpm_unet": 35_746_307, "ddpm_unet_small": 1_063_905},
        image_sizes={"ddpm_unet": 32},
    ),
)
