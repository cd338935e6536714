"""Writes what a server and a device can load, and proves that it answers as the model does."""

# Kinds of TFLite files besides float32, unless others are requested
QUANTIZED = ("float16", "dynamic", "int8")
KINDS = ("float32", *QUANTIZED)
CALIBRATED = ("int8", "int8_full")  # kinds that examples are needed for; they hold no loops
EIGHT_BITS = ("dynamic", *CALIBRATED)
CALIBRATION = 200  # training examples that the ranges of 8-bit numbers are taken from
