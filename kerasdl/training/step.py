"""One update of every player, the same on one device and on many: the only `train_step`."""

import keras
import tensorflow as tf

from kerasdl.errors import UserError
from kerasdl.layers import dropout, remat
from kerasdl.training import optimizers, schedules

SCALE_START, SCALE_GROWTH_STEPS = 2.0**15, 2000


class Trainer(keras.Model):
    """A model, what it is trained for, and the optimizers: `fit` accepts it on one device.

    For each player in turn `update` sums the per-example losses of this replica over the *global*
    batch size, accumulates over micro-batches, adds the gradients of all replicas, adds weight
    decay, clips, applies, and averages the weights.

    Args:
        model: The model that is trained; built.
        task: A `Task`.
        recipe: The settings.
        schedule: Learning rate as a function of the step.
    """

    def __init__(self, model, task, recipe, schedule):
        super().__init__(name="trainer")
        self.net = model
        self.task = task
        self.settings = recipe
        if task.coupled and recipe.grad_accum_steps > 1:
            raise UserError(
                "--grad-accum-steps: the loss of this task couples the examples of a batch"
            )
        if recipe.remat and not remat.blocks(model):
            raise UserError(f"--remat: {recipe.model} has no blocks to recompute")
        self.player_variables = {p: task.variables(model, p) for p in task.players}
        self.optimizers = {
            p: optimizers.make(recipe, schedules.stretched(schedule, self.repeats(p)))
            for p in task.players
        }
        for player, optimizer in self.optimizers.items():
            optimizer.build(self.player_variables[player])
        self.lr_factor = _scalar(1.0, "lr_factor")  # lowered by the plateau law
        self.fp16 = recipe.precision == "mixed_float16"
        if self.fp16:
            self.loss_scale = _scalar(SCALE_START, "loss_scale")
            self.good_steps = _scalar(0.0, "good_steps")
        # Batch norm's statistics too: they belong to the weights that they were taken with.
        self.averaged = [v for v in model.variables if "float" in v.dtype and recipe.ema_decay]
        self.ema = [
            keras.Variable(v.numpy(), trainable=False, dtype=v.dtype, name=f"ema_{i}")
            for i, v in enumerate(self.averaged)
        ]
        self.names = tuple(
            f"{player}_{m}" if len(task.players) > 1 else m
            for player in task.players
            for m in task.metrics
        )
        self.trackers = [keras.metrics.Mean(name=name) for name in self.names]
        self.compile(optimizer=self.optimizers[task.players[0]], jit_compile=False)

    @property
    def metrics(self):
        return self.trackers

    def call(self, x, training=False):
        return self.net(x, training=training)

    def state(self) -> dict:
        """`{unique name: variable}` of everything that the next step depends on."""
        pairs = [(f"model/{v.path}", v) for v in self.net.variables]
        for player, optimizer in self.optimizers.items():
            # Without the optimizer's name, which counts those made before in this process.
            pairs += [(f"{player}/{v.path.partition('/')[2]}", v) for v in optimizer.variables]
        pairs += [(f"ema/{v.path}", m) for v, m in zip(self.averaged, self.ema, strict=True)]
        pairs.append(("lr_factor", self.lr_factor))
        if self.fp16:
            pairs += [("loss_scale", self.loss_scale), ("good_steps", self.good_steps)]
        named = dict(pairs)
        if len(named) < len(pairs):
            raise UserError(f"two weights of {self.net.name}, or their slots, have one path")
        return named

    # -- one step -------------------------------------------------------------------------------

    def train_step(self, batch):
        """For `fit` on one device: an update, and the running means of its metrics."""
        sums, _ = self.update(batch)
        for i, tracker in enumerate(self.trackers):
            tracker.update_state(sums[i + 1] / sums[0])
        return {t.name: t.result() for t in self.trackers}

    def test_step(self, batch):
        """For `evaluate` on one device."""
        sums = self.judge(batch)
        for i, tracker in enumerate(self.trackers):
            tracker.update_state(sums[i + 1] / sums[0], sample_weight=sums[0])
        return {t.name: t.result() for t in self.trackers}

    @tf.autograph.experimental.do_not_convert
    def update(self, batch, want_norms=False):
        """Train every player on this replica's share of a batch. Call it in replica context.

        Args:
            batch: `{name: (B, ...)}`.
            want_norms: Whether the gradients' norms are computed (a bool, or a bool tensor).

        Returns:
            Sums over this replica's examples `(1 + metrics,)`, the number of examples first, and
            the norm of each gradient over all replicas `(weights,)`, zeros where not wanted.
        """
        replica = tf.distribute.get_replica_context()
        dtype = keras.config.floatx()
        size = tf.shape(next(iter(batch.values())))[0]
        sums, norms = [tf.cast(size, dtype)], []
        with dropout.replica(replica.replica_id_in_sync_group):
            for player in self.task.players:
                totals, repeats = 0.0, self.repeats(player)
                for i in range(repeats):
                    part = _every(repeats, batch, i)
                    metrics, gradients = self._gradients(part, player, replica)
                    totals += tf.stack([tf.cast(m, dtype) for m in metrics])
                    last = self._apply(player, gradients, replica, want_norms)
                sums += tf.unstack(totals)
                norms.append(last)
            self.task.after_update(self.net, batch)
        if self.ema:
            replica.merge_call(self._average)
        return tf.stack(sums), tf.concat(norms, 0)

    @tf.autograph.experimental.do_not_convert
    def judge(self, batch):
        """Weighted sums `(1 + metrics,)` over a batch in inference, the weight's first."""
        dtype = keras.config.floatx()
        weight = tf.cast(batch["weight"], dtype)
        prepared = self.task.prepare(batch)
        sums = [tf.reduce_sum(weight)]
        for player in self.task.players:
            loss, metrics = self.task.losses(self.net, prepared, player, training=False)
            for value in self._in_order(loss, metrics):
                sums.append(tf.reduce_sum(tf.cast(value, dtype) * weight))
        return tf.stack(sums)

    def _in_order(self, loss, metrics):
        return [loss if name == "loss" else metrics[name] for name in self.task.metrics]

    def repeats(self, player) -> int:
        """How many updates a player makes in its turn, each on a part of the batch."""
        return self.task.repeats.get(player, 1)

    def _gradients(self, batch, player, replica):
        """Sums of the metrics here, and the gradients of the global mean loss over all replicas."""
        replicas = replica.num_replicas_in_sync

        def local(batch):
            return self._local_gradients(batch, player, replicas)

        if self.settings.jit:
            local = tf.function(local, jit_compile=True, autograph=False)
        totals, gradients = local(batch)
        if replicas > 1:
            gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        return totals, list(gradients)

    def _local_gradients(self, batch, player, replicas):
        """Sums of the metrics, and the share of this replica in the gradients."""
        micro = self.settings.grad_accum_steps
        size = tf.shape(next(iter(batch.values())))[0]
        variables = [v.value for v in self.player_variables[player]]
        totals, gradients = None, None
        for i in range(micro):
            part = self.task.prepare(_every(micro, batch, i))
            with tf.GradientTape() as tape:
                with remat.remat(self.settings.remat):
                    loss, metrics = self.task.losses(self.net, part, player, training=True)
                total = tf.reduce_sum(loss)
                share = total / tf.cast(size * replicas, total.dtype)
                if self.fp16:
                    share *= tf.cast(self.loss_scale.value, share.dtype)
            found = tape.gradient(share, variables, unconnected_gradients="zero")
            found = [tf.convert_to_tensor(g) for g in found]  # sparse ones too
            sums = [tf.reduce_sum(m) for m in self._in_order(loss, metrics)]
            if i == 0:
                totals, gradients = sums, found
            else:
                totals = [a + b for a, b in zip(totals, sums, strict=True)]
                gradients = [a + b for a, b in zip(gradients, found, strict=True)]
        return totals, gradients

    def _apply(self, player, gradients, replica, want_norms):
        """Update the weights of one player with gradients that all replicas agree on."""
        recipe, optimizer = self.settings, self.optimizers[player]
        variables = self.player_variables[player]
        finite = True
        if self.fp16:
            gradients, finite = self._unscale(gradients)
        if want_norms is not False:
            norms = tf.cond(
                want_norms,
                lambda: tf.stack([tf.cast(tf.norm(g), "float32") for g in gradients]),
                lambda: tf.zeros(len(gradients)),
            )
        else:
            norms = tf.zeros(len(gradients))
        decay = [recipe.weight_decay if optimizers.decays(v) else 0.0 for v in variables]
        coupled = recipe.opt not in optimizers.DECOUPLED
        if coupled:
            gradients = [
                g + d * tf.cast(v.value, g.dtype) if d else g
                for g, v, d in zip(gradients, variables, decay, strict=True)
            ]
        if recipe.clip_grad is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, recipe.clip_grad)
        scales = optimizers.layer_scales(
            variables, 1.0 if recipe.layer_decay is None else recipe.layer_decay
        )
        rate = tf.cast(optimizer.learning_rate * self.lr_factor.value, "float32")

        def write(variable, gradient, rate, finite, scale, decay):
            def do():
                if decay and not coupled:
                    variable.assign_sub(variable * tf.cast(rate * scale * decay, variable.dtype))
                optimizer.update_step(gradient, variable, rate * scale)
                return tf.constant(0)

            if self.fp16:
                tf.cond(finite, do, lambda: tf.constant(0))
            else:
                do()

        def merged(strategy, gradients, rate, finite):
            update = strategy.extended.update
            for g, v, s, d in zip(gradients, variables, scales, decay, strict=True):
                update(v.value, write, args=(g, rate, finite, s, d), group=False)

        replica.merge_call(merged, args=(gradients, rate, finite))
        optimizer.iterations.assign_add(tf.cast(finite, optimizer.iterations.dtype))
        return norms

    def _average(self, strategy):
        """Move the averages towards the weights, on every replica."""

        def move(mean, variable):
            keep = tf.cast(self.settings.ema_decay, mean.dtype)
            mean.assign(mean * keep + tf.cast(variable, mean.dtype) * (1 - keep))

        for mean, v in zip(self.ema, self.averaged, strict=True):
            strategy.extended.update(mean.value, move, args=(v.value,), group=False)

    def _unscale(self, gradients):
        """float16: undo the loss scale, adapt it, and say whether every replica was finite."""
        scale = self.loss_scale.value
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
        gradients = [g / tf.cast(scale, g.dtype) for g in gradients]
        grown = self.good_steps.value + 1 >= SCALE_GROWTH_STEPS
        new = tf.where(finite, tf.where(grown, scale * 2, scale), tf.maximum(scale / 2, 1.0))
        good = tf.where(finite & ~grown, self.good_steps.value + 1, 0.0)
        self.loss_scale.assign(new)
        self.good_steps.assign(good)
        return gradients, finite


def _every(n, batch, i):
    """Every `n`-th example from the `i`-th on: the same global parts on any number of replicas."""
    return {k: v[i::n] for k, v in batch.items()} if n > 1 else batch


def _scalar(value, name):
    return keras.Variable(
        value,
        trainable=False,
        dtype="float32",
        name=name,
        aggregation="only_first_replica",
    )
