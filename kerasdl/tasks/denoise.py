"""Diffusion: take away the noise that was added, and so sample images from noise."""

from dataclasses import fields, replace

import numpy as np
from keras import ops

from kerasdl.columns import Spec
from kerasdl.errors import UserError
from kerasdl.ops import diffusion, noise
from kerasdl.ops.schedules import BETAS, SPACINGS, T
from kerasdl.tasks.sampling import sample_signature
from kerasdl.tasks.task import Limit, Noise, Number, Signature, Task

# Streams of an example's key; the sampler's steps have one each, from STEPS on.
EPS, TIME, DROP, STEPS = 0, 1, 2, 8
ROWS, FRAMES = 8, 10  # of the pictures
PROCESS = ("schedule", "prediction", "beta_start", "beta_end", "train_steps", "first_time")
SAMPLING = tuple(f.name for f in fields(diffusion.Sampler))[2:]  # all but the process and the name


class Denoise(Task):
    """Images `x_0`, scaled to [-1, 1], with noise on them: `x_t = alpha_t x_0 + sigma_t eps`.

    Settings of the training: `schedule` (linear, scaled_linear, cosine, ve, flow), `beta_start`
    and `beta_end` of linear ones, `train_steps`, `first_time` (1, or 0 as published networks
    count), `prediction` (eps, x, v), `time` (uniform, logit_normal), `weight` of the loss (simple,
    min_snr, vlb), `conditional`, whether the model is told the class, and `label_drop`, how often
    not, which guidance needs. Of sampling: `sampler` (ddpm, ddim, euler, heun), `steps`, `spacing`
    of their times (even, leading, linspace, trailing), `steps_offset` of leading, `shift` of flow,
    `karras` (sizes of the noise, of euler and heun), `variance` of ddpm (fixed_small, fixed_large),
    `eta` of ddim, `clip`, `clip_range`, `clip_noise`, `ends_clean`, and the `guidance` of pictures
    and evaluated samples. See `kerasdl.ops.diffusion`.

    Metrics: `loss`, the mean squared error of the prediction, weighted; `noise_error`, that of
    `eps`, whatever is predicted.
    """

    inputs = {"image": Spec(("H", "W", "C"), "float32", "image")}
    targets = {"label": Spec((), "int32", "label")}
    optional = ("label",)
    settings = {
        "schedule": "cosine",
        "beta_start": BETAS[0],
        "beta_end": BETAS[1],
        "train_steps": T,
        "first_time": 1,
        "prediction": "v",
        "time": "uniform",
        "weight": "simple",
        "conditional": False,
        "label_drop": 0.1,
        "sampler": "ddim",
        "steps": 50,
        "spacing": "even",
        "steps_offset": 0,
        "shift": 1.0,
        "karras": False,
        "variance": "fixed_small",
        "eta": 0.0,
        "clip": True,
        "clip_range": 1.0,
        "clip_noise": True,
        "ends_clean": True,
        "guidance": 2.0,
    }
    allowed = {
        "schedule": diffusion.SCHEDULES,
        "beta_start": Number(1e-6, 0.999),
        "beta_end": Number(1e-6, 0.999),
        "train_steps": Number(1, 10_000, whole=True),
        "first_time": Number(0, 1, whole=True),
        "prediction": diffusion.PREDICTIONS,
        "time": diffusion.TIMES,
        "weight": diffusion.WEIGHTS,
        "conditional": (False, True),
        "label_drop": Number(0, 0.999),
        "sampler": diffusion.SAMPLERS,
        "steps": Number(1, 10_000, whole=True),
        "spacing": SPACINGS,
        "steps_offset": Number(0, 9_999, whole=True),
        "shift": Number(0.01, 100),
        "karras": (False, True),
        "variance": diffusion.VARIANCES,
        "eta": Number(0, 1),
        "clip": (False, True),
        "clip_range": Number(0.01, 1000),
        "clip_noise": (False, True),
        "ends_clean": (False, True),
        "guidance": Number(0, 100),
    }
    changeable = ("sampler", *SAMPLING)
    metrics = ("loss", "noise_error")
    monitor = "-loss"
    served_examples = 512

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        s = self.settings
        self.inputs = {"image": Spec(tuple(info.image_shape), "float32", "image")}
        self.num_classes = len(info.class_names) if s["conditional"] else None
        if s["conditional"] and not self.num_classes:
            raise UserError("--task-kwargs conditional=true: the data have no classes")
        self.guides = bool(s["conditional"] and s["label_drop"])
        try:
            self.diffusion = diffusion.Diffusion(**{name: s[name] for name in PROCESS})
            settings = {name: s[name] for name in SAMPLING}
            self.sampler = diffusion.Sampler(self.diffusion, s["sampler"], **settings)
            self.noiseless = self.sampler
            if self.sampler.adds_noise:
                plain = {"name": "ddim", "eta": 0.0, "variance": "fixed_small"}
                self.noiseless = replace(self.sampler, **plain)
        except ValueError as error:
            raise UserError(f"--task-kwargs {error}") from None

    def arguments(self):
        return {"image_shape": tuple(self.info.image_shape), "num_classes": self.num_classes}

    # -- training -------------------------------------------------------------------------------

    def prepare(self, batch):
        """Noise, a time, and the label `K` (none) in place of some labels."""
        if "time" in batch:
            return batch
        key = batch["key"]
        eps = noise.normal(key, tuple(batch["image"].shape[1:]), EPS)
        t = self.diffusion.times(key, self.settings["time"], TIME)
        dropped = noise.uniform(key, (), DROP) < self.settings["label_drop"]
        return {**batch, "eps": eps, "time": t, "dropped": dropped}

    def model_inputs(self, model, batch):
        return self._inputs(self._noised(batch), batch["time"], batch.get("label"))

    def losses(self, model, batch, player="model", training=False):
        t, eps, label = batch["time"], batch["eps"], batch.get("label")
        if training and self.num_classes:
            label = ops.where(batch["dropped"], self.num_classes, label)
        x0, x = self._scaled(batch), self._noised(batch)
        predicted = model(self._inputs(x, t, label), training=training)
        error = _mean_square(predicted - self.diffusion.target(x0, eps, t))
        loss = error * self.diffusion.weight(t, self.settings["weight"])
        alpha, sigma = self.diffusion.levels(t)
        clean = self.diffusion.clean(x, predicted, t) - x0
        # eps = (x - alpha x_0) / sigma
        ratio = alpha / ops.maximum(sigma, diffusion.MIN_DIVISOR)
        return loss, {"noise_error": _mean_square(clean) * ops.square(ratio)}

    def _scaled(self, batch):
        return 2.0 * ops.cast(batch["image"], batch["eps"].dtype) - 1.0

    def _noised(self, batch):
        return self.diffusion.noised(self._scaled(batch), batch["eps"], batch["time"])

    def _inputs(self, x, t, label):
        scale = self.diffusion.scale(t)
        image = x if scale is None else scale[:, None, None, None] * x
        inputs = {"image": image, "time": self.diffusion.network_time(t)}
        if self.num_classes:
            inputs["label"] = label
        return inputs

    def predict(self, model, batch):
        predicted = model(self.model_inputs(model, batch), training=False)
        clean = self.diffusion.clean(self._noised(batch), predicted, batch["time"])
        return {"image": self._shown(clean)}

    # -- drawing --------------------------------------------------------------------------------

    def sampling_modes(self, model):
        if not self.num_classes:
            return {"samples": {}}
        ways = {"conditional": {"guidance": 1.0}}
        if self.guides:
            ways = {"guided": {"guidance": self.settings["guidance"]}, **ways}
            ways["unconditional"] = {"guidance": 0.0}
        return ways

    def sample(self, model, key, label=None, guidance=1.0):
        """Images from the sampler of the settings.

        Args:
            model: The model.
            key: uint32 `(B, 2)`.
            label: int32 `(B,)`, or None for no class.
            guidance: float, or float scalar tensor; see `kerasdl.ops.diffusion.guided`.

        Raises:
            ValueError: A label of an unconditional model, or guidance of one whose labels were
                never dropped.
        """
        if label is not None and not self.num_classes:
            raise UserError("label: the model is unconditional")
        if not self.guides and not (isinstance(guidance, float) and guidance == 1.0):
            raise UserError("guidance: the model was trained without dropping labels")
        x = self.sampler.first(self._noise(key))
        predict = self._predictor(model, label, guidance)
        return self._shown(self.sampler.run(predict, x, key, stream=STEPS))

    def _noise(self, key):
        return noise.normal(key, tuple(self.info.image_shape), EPS)

    def _shown(self, x):
        return ops.clip((x + 1.0) / 2.0, 0.0, 1.0)

    def _predictor(self, model, label, guidance):
        """`(x, t) -> prediction` with the label and its guidance."""

        def plain(x, t, label):
            return model(self._inputs(x, t, label), training=False)

        def none(x):
            return ops.zeros(ops.shape(x)[:1], "int32") + self.num_classes

        if not self.num_classes:
            return lambda x, t: plain(x, t, None)
        if label is None:
            return lambda x, t: plain(x, t, none(x))
        if isinstance(guidance, float) and guidance == 1.0:
            return lambda x, t: plain(x, t, label)

        def both(x, t):
            # The network once, on the images and again on as many as need it without a class:
            # none where the guidance is 1, which a graph learns only when it runs.
            count = ops.shape(x)[0]
            more = ops.where(ops.equal(guidance, 1.0), 0, count)
            parts = ((x, x), (t, t), (label, none(x)))
            result = plain(*(ops.concatenate([a, b[:more]], axis=0) for a, b in parts))
            conditional = result[:count]
            unconditional = ops.concatenate([result[count:], conditional[more:]], axis=0)
            return diffusion.guided(conditional, unconditional, guidance)

        def in_turn(x, t):
            # Likewise at a fixed size: the second turn of a loop is left out.
            def turn(i, results):
                result = plain(x, t, ops.where(ops.equal(i, 0), label, none(x)))
                return ops.where(ops.equal(i, 0), result, results[0]), result

            turns = ops.where(ops.equal(guidance, 1.0), 1, 2)
            results = ops.fori_loop(0, turns, turn, (ops.zeros_like(x), ops.zeros_like(x)))
            return diffusion.guided(*results, guidance)

        def chosen(x, t):
            fixed = x.shape[0] is not None and not isinstance(guidance, float)
            return in_turn(x, t) if fixed else both(x, t)

        return chosen

    def pictures(self, model, batch):
        classes = self.num_classes
        columns = min(classes, 10) if classes else ROWS
        key = noise.sample_keys((0, 0), ROWS * columns)
        label = ops.arange(ROWS * columns, dtype="int32") % columns if classes else None
        guidance = self.settings["guidance"] if self.guides else 1.0
        result = {"samples": self.sample(model, key, label, guidance)}
        shape = tuple(self.info.image_shape)
        result["samples"] = ops.reshape(result["samples"], (ROWS, columns, *shape))
        key, label = key[:columns], None if label is None else label[:columns]
        result["trajectory"] = self._trajectory(model, key, label, guidance)
        if not self.noiseless.adds_noise:
            result["interpolation"] = self._interpolation(model, key, label, guidance)
        return result

    def _trajectory(self, model, key, label, guidance):
        """`(images, times, H, W, C)` on the way from noise."""
        predict = self._predictor(model, label, guidance)
        x = self.sampler.first(self._noise(key))
        sigma = self.sampler.sigmas()
        ends = [round(self.sampler.steps * i / FRAMES) for i in range(FRAMES + 1)]
        frames = [x]
        for start, stop in zip(ends, ends[1:], strict=False):
            x = self.sampler.run(predict, x, key, start, stop, STEPS) if stop > start else x
            frames.append(x)
        # Of a variance that explodes, the noise is shown at its own size.
        frames = [f / max(1.0, float(sigma[e])) for f, e in zip(frames, ends, strict=True)]
        return self._shown(ops.stack(frames, axis=1))

    def _interpolation(self, model, key, label, guidance):
        """Rows between the noises of one image and the next, of equal length on the way."""
        ends = self._noise(key), ops.roll(self._noise(key), -1, axis=0)
        angles = np.tile(np.linspace(0, np.pi / 2, ROWS), key.shape[0])[:, None, None, None]
        a, b = (ops.repeat(end, ROWS, axis=0) for end in ends)
        x = ops.cast(np.cos(angles), a.dtype) * a + ops.cast(np.sin(angles), a.dtype) * b
        label = None if label is None else ops.repeat(label, ROWS, axis=0)
        predict = self._predictor(model, label, guidance)
        x = self._shown(self.noiseless.run(predict, self.noiseless.first(x)))
        return ops.reshape(x, (key.shape[0], ROWS, *x.shape[1:]))

    # -- serving --------------------------------------------------------------------------------

    def signatures(self, model):
        shape = Spec(tuple(self.info.image_shape), "float32")
        label = {"label": Spec((), "int32", "label")} if self.num_classes else {}
        weight = {"guidance": Spec((), "float32", batched=False)} if self.guides else {}

        def denoise(image, time, label=None):
            predicted = model(self._inputs(image, time, label), training=False)
            clean = self.diffusion.clean(image, predicted, time)
            return {"image": self._shown(clean), "prediction": predicted}

        def sample_from(noise, label=None, guidance=1.0):
            predict = self._predictor(model, label, guidance)
            x = self.noiseless.run(predict, self.noiseless.first(noise))
            return {"image": self._shown(x)}

        def sample(key, label=None, guidance=1.0):
            return self.sample(model, key, label, guidance)

        classes = self.num_classes or 0
        line = f"labels must be at least 0 and at most {classes} (none)"
        known = (Limit(("label",), line, 0, classes),) if label else ()
        image = {"image": Spec(shape.shape, "float32", "image")}
        rng = np.random.default_rng(0)
        cases = []
        for count in (1, 3):
            case = {"noise": rng.standard_normal((count, *shape.shape)).astype("float32")}
            case |= {"label": np.arange(count, dtype="int32") % self.num_classes} if label else {}
            cases.append(case | ({"guidance": np.float32(count)} if weight else {}))
        return [
            Signature(
                "denoise",
                {"image": shape, "time": Spec((), "float32", min=0, max=1), **label},
                denoise,
                outputs=image,
                limits=known,
            ),
            Signature(
                "sample_from",
                {"noise": shape, **label, **weight},
                sample_from,
                outputs=image,
                noise={"noise": Noise("normal", EPS)},
                limits=known,
                cases=tuple(cases),
            ),
            sample_signature(sample, shape.shape, self.num_classes, self.guides),
        ]

    def served(self, columns):
        key = noise.keys(0, 0, columns.get("number", np.arange(len(columns["image"]))))
        label = {k: np.asarray(v, "int32") for k, v in columns.items() if k == "label"}
        batch = self.prepare({**columns, **label, "key": key})
        result = {"image": self._noised(batch), "time": batch["time"]}
        result = {k: np.asarray(v, "float32") for k, v in result.items()}
        return {**result, **label, "clean": columns["image"]}

    def evaluated_by(self, target):
        return {
            "signature": "denoise",
            "inputs": ["image", "time"] + ["label"] * bool(self.num_classes),
            "output": "image",
            "target": "clean",
            "loss": "mse",
        }


def _mean_square(x):
    return ops.mean(ops.square(x), axis=(1, 2, 3))


TASK = Denoise
