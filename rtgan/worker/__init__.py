"""Models that run in TorchScript as they are: in a process of their own, beside the audio thread.

The node on the audio thread (`node`) writes blocks into shared memory and takes the answers out of it, a fixed number
of samples later; it never waits. The worker process (`serve`) is forked from a nursery that has imported torch once
(`nursery`), so that a model that crashes, hangs or grows takes nothing but itself along. `spec` is what is known of a
model file without torch, `dialects` the one place that speaks the protocols of models.
"""
