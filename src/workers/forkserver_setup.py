"""Imported last by the process that workers fork from.

That process exits without unloading its modules. Unloading takes seconds, during which a program that reads the
command's output would have to wait. The modules are also excluded from garbage collection in all forks: the Trainer
collects garbage at the end of every training, and would examine a million objects of imported modules.
"""

import atexit
import gc
import os

atexit.register(os._exit, 0)
gc.collect()
gc.freeze()
