"""One update of every player, the same on one device and on many: the only `train_step`."""

import keras
import tensorflow as tf

from kerasdl.errors import UserError
from kerasdl.layers import dropout, remat
from kerasdl.training import collectives, optimizers, schedules

SCALE_START, SCALE_GROWTH_STEPS = 2.0**15, 2000


class Trainer(keras.Model):
    """A model, what it is trained for, and the optimizers: `fit` accepts it on one device.

    `update` is read from top to bottom: for each player in turn the losses and their gradients on
    this replica, summed over micro-batches; the sum over all replicas, divided by the global
    weight; weight decay, clipping, the optimizer; at last the task's `after_update` and the average
    of the weights.

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
        self.extra_weights = task.extra_weights(model)
        self.player_variables = {p: task.variables(model, p) for p in task.players}
        self.optimizers = {
            p: optimizers.make(recipe, schedules.stretched(schedule, self.updates(p)))
            for p in task.players
        }
        for player, optimizer in self.optimizers.items():
            optimizer.build(self.player_variables[player])
        self.weighted = set()  # players whose loss is a pair of sums and weights
        self.lr_factor = _scalar(1.0, "lr_factor")  # lowered by the plateau schedule
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
        pairs += [(f"task/{v.path}", v) for v in self.extra_weights]
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

    # -- for `fit` on one device ----------------------------------------------------------------

    def train_step(self, batch):
        """An update, and the running means of its metrics."""
        return self._track(self.update(batch)[0])

    def test_step(self, batch):
        """The means of a split's metrics."""
        return self._track(self.metric_sums(batch))

    def _track(self, sums):
        for i, tracker in enumerate(self.trackers):
            mean = tf.math.divide_no_nan(sums[0, i], sums[1, i])
            tracker.update_state(mean, sample_weight=sums[1, i])
        return {t.name: t.result() for t in self.trackers}

    # -- what is evaluated ----------------------------------------------------------------------

    @tf.autograph.experimental.do_not_convert
    def metric_sums(self, batch):
        """Sums and weights of all metrics over a batch in inference, `(2, metrics)`."""
        weight, prepared, sums = batch["weight"], self.task.prepare(batch), []
        with collectives.gathering():
            for player in self.task.players:
                loss, metrics = self.task.losses(self.net, prepared, player, training=False)
                sums.append(_totals(self._in_order(loss, metrics), weight))
        return tf.concat(sums, 1)

    @tf.autograph.experimental.do_not_convert
    def outputs(self, batch):
        """What the task predicts of a batch in inference: what evaluators are given."""
        return self.task.predict(self.net, self.task.prepare(batch))

    def _in_order(self, loss, metrics):
        return [loss if name == "loss" else metrics[name] for name in self.task.metrics]

    # -- one update -----------------------------------------------------------------------------

    @tf.autograph.experimental.do_not_convert
    def update(self, batch, want_norms=False):
        """Train every player on this replica's part of a batch. Call it in replica context.

        Args:
            batch: `{name: (B, ...)}`.
            want_norms: Whether the gradients' norms are computed (a bool, or a bool tensor).

        Returns:
            Sums and weights of all metrics over this replica's examples, `(2, metrics)`; and the
            norm of each gradient over all replicas `(weights,)`, zeros where not wanted.
        """
        replica = tf.distribute.get_replica_context()
        sums, norms, carry = [], [], {}
        with dropout.replica(replica.replica_id_in_sync_group), collectives.gathering():
            for player in self.task.players:
                totals, carried, updates = 0.0, [], self.updates(player)
                for i in range(updates):
                    part = _every(updates, batch, i)
                    result, gradients, kept = self._gradients(part, player, replica)
                    totals += result
                    carried.append(kept)
                    last = self._apply(player, gradients, replica, want_norms)
                sums.append(totals)
                norms.append(last)
                carry |= _together(carried)
            if self.task.carried:
                carry = {name: collectives.all_gather(value) for name, value in carry.items()}
            self.task.after_update(self.net, carry)
        if self.ema:
            replica.merge_call(self._average)
        return tf.concat(sums, 1), tf.concat(norms, 0)

    def updates(self, player) -> int:
        """How many updates a player makes in its turn, each on a part of the batch."""
        return self.task.updates_per_step.get(player, 1)

    def _gradients(self, batch, player, replica):
        """Totals of the metrics here, the gradients of the loss's mean over all replicas, carry."""
        count = replica.num_replicas_in_sync

        def local(batch):
            return self._local_gradients(batch, player, count)

        if self.settings.jit:
            local = tf.function(local, jit_compile=True, autograph=False)
        totals, gradients, carry = local(batch)
        weight = totals[1, 0]  # of the loss: examples, or what it counts
        if count > 1:
            *gradients, weight = replica.all_reduce(
                tf.distribute.ReduceOp.SUM, [*gradients, weight]
            )
        if player in self.weighted:
            # Divided by the examples so far: now by the weights of all replicas and micro-batches.
            examples = tf.cast(_size(batch) * count, weight.dtype)
            factor = tf.math.divide_no_nan(examples, weight)
            gradients = [g * tf.cast(factor, g.dtype) for g in gradients]
        return totals, list(gradients), carry

    def _local_gradients(self, batch, player, replicas):
        """Totals of the metrics, this replica's part of the gradients, and what is carried."""
        micro, examples = self.settings.grad_accum_steps, _size(batch) * replicas
        variables = [v.value for v in self.player_variables[player]]
        totals, gradients, carried = None, None, []
        for i in range(micro):
            part = self.task.prepare(_every(micro, batch, i))
            with tf.GradientTape() as tape:
                with remat.remat(self.settings.remat):
                    loss, metrics = self.task.losses(self.net, part, player, training=True)
                if isinstance(loss, tuple):
                    self.weighted.add(player)
                total = tf.reduce_sum(loss[0] if isinstance(loss, tuple) else loss)
                total = total / tf.cast(examples, total.dtype)
                if self.fp16:
                    total *= tf.cast(self.loss_scale.value, total.dtype)
            result = tape.gradient(total, variables, unconnected_gradients="zero")
            result = [tf.convert_to_tensor(g) for g in result]  # sparse ones too
            sums = _totals(self._in_order(loss, metrics))
            carried.append({name: metrics[name] for name in self.task.carried if name in metrics})
            if i == 0:
                totals, gradients = sums, result
            else:
                totals = totals + sums
                gradients = [a + b for a, b in zip(gradients, result, strict=True)]
        return totals, gradients, _together(carried)

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
                lambda: _norms(gradients),
                lambda: tf.zeros(len(gradients)),
            )
        else:
            norms = tf.zeros(len(gradients))
        amount = 0.0 if recipe.opt in optimizers.OWN_DECAY else recipe.weight_decay
        decay = [amount if optimizers.decays(v) else 0.0 for v in variables]
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

        def factors(scale, decay, dtype):
            own = rate * scale
            shrink = tf.cast(own * decay, dtype) if decay and not coupled else None
            return shrink, optimizers.factors(optimizer, own, dtype)

        kinds = [(s, d, v.dtype) for s, d, v in zip(scales, decay, variables, strict=True)]
        made = {kind: factors(*kind) for kind in dict.fromkeys(kinds)}  # once, not per weight

        def write(variable, gradient, finite, shrink, own):
            def do():
                if shrink is not None:
                    variable.assign_sub(variable * shrink, read_value=False)
                optimizer.update_step(gradient, variable, own)

            def do_and_return():
                do()
                return tf.constant(0)

            if self.fp16:
                tf.cond(finite, do_and_return, lambda: tf.constant(0))
            else:
                do()

        def merged(strategy, gradients, finite, made):
            for g, v, kind in zip(gradients, variables, kinds, strict=True):
                strategy.extended.update(v.value, write, args=(g, finite, *made[kind]), group=False)

        replica.merge_call(merged, args=(gradients, finite, made))
        optimizer.iterations.assign_add(tf.cast(finite, optimizer.iterations.dtype))
        return norms

    def _average(self, strategy):
        """Move the averages towards the weights, on every replica."""

        def move(mean, variable, keep, rest):
            mean.assign(mean * keep + variable * rest, read_value=False)

        parts = {}  # by dtype: what is kept, and what is not
        for dtype in {mean.dtype for mean in self.ema}:
            keep = tf.cast(self.settings.ema_decay, dtype)
            parts[dtype] = keep, 1 - keep
        for mean, v in zip(self.ema, self.averaged, strict=True):
            args = (v.value, *parts[mean.dtype])
            strategy.extended.update(mean.value, move, args=args, group=False)

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


def _totals(values, weight=None):
    """Sums and weights `(2, metrics)` of per-example values, or of pairs of sums and weights.

    Args:
        values: Each `(B,)`, or `((B,), (B,))`.
        weight: Of each example `(B,)`; all 1 if None.
    """
    dtype = keras.config.floatx()
    weight = None if weight is None else tf.cast(weight, dtype)
    rows = []
    for value in values:
        pair = value if isinstance(value, tuple) else (value, tf.ones_like(value))
        pair = [tf.cast(v, dtype) for v in pair]
        pair = pair if weight is None else [v * weight for v in pair]
        rows.append(tf.stack([tf.reduce_sum(v) for v in pair]))
    return tf.stack(rows, 1)


def _norms(gradients):
    """The norm of each, `(weights,)`."""
    squares = [tf.cast(tf.nn.l2_loss(g), keras.config.floatx()) for g in gradients]  # halved
    return tf.cast(tf.sqrt(2 * tf.stack(squares)), "float32")


def _size(batch):
    """Examples of a batch."""
    return tf.shape(next(iter(batch.values())))[0]


def _every(n, batch, i):
    """Every `n`-th example from the `i`-th on: the same global parts on any number of replicas."""
    return {k: v[i::n] for k, v in batch.items()} if n > 1 else batch


def _together(parts):
    """The batch whose parts `_every` took."""
    if len(parts) == 1:
        return parts[0]
    stacked = {name: tf.stack([part[name] for part in parts], 1) for name in parts[0]}
    return {k: tf.reshape(v, tf.concat([[-1], tf.shape(v)[2:]], 0)) for k, v in stacked.items()}


def _scalar(value, name):
    return keras.Variable(
        value,
        trainable=False,
        dtype="float32",
        name=name,
        aggregation="only_first_replica",
    )
