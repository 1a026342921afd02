"""Importing this module makes Python search for garbage less often.

Importing torch creates hundreds of thousands of objects, and none is garbage: it takes 3.4 s instead of 4.0.
"""

import gc

gc.set_threshold(10_000)  # new objects; Python's default is 700
