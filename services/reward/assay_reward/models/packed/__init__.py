"""Decoders and encoders computed on packed tokens: no padding, shared beginnings once, the last layer where it is read.

All tokens of a batch are the rows of one matrix. Of decoders `plan.py` finds what they share, `geometry.py` which rows attend to which,
`decoder.py` runs the layers, `forward.py` and `log_probs.py` put heads on them, `families.py` says how families differ. Encoders share
nothing: `encoder.py` runs them, `encoder_families.py` says how they differ. Either file of families says how to add one.

What holds for a score's bits, measured for float32 with PyTorch 2.13 on one thread of a processor with AVX2 (and held by
`tests/unit/reward/test_packed_bits.py`, which measures first whether the processor's matrix products are such):

- A row of a matrix product (MKL's and oneDNN's prepacked alike) has the same bits with any number of rows beside it, from four rows on;
  with MKL it has others in a matrix of one to three. So no matrix here has fewer than `ROW_MULTIPLE` rows, and their number is a
  multiple of it, which keeps elementwise kernels off their scalar tails too. The filling is less than 16 rows a batch.
- PyTorch's attention for CPUs sums over keys in an order that depends on how many keys it is given. On the grid of `geometry.py` that
  number depends on a token's position alone.
- So a sequence has the same bits alone, in a group, beside other requests, in any order and with any part of it shared.
- In bfloat16 and float16, on GPUs, and where the processor's products are not such, company moves a score by rounding.
"""
