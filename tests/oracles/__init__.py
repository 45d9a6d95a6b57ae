"""The six examples again, in plain JAX and double precision, knowing nothing of this package.

Each module has `train(data)`: `data` holds, under the script's own names, the arrays that the script computed and the
values its shared variables start from; for shuffled training also `order`, an int array [epochs, rows] with the rows in
the order each epoch took them. It returns the trained shared variables under their names. `evaluate(parameters, data)`,
where present, returns the cost and the metric on the rows set aside for testing.
"""

import jax

jax.config.update("jax_enable_x64", True)
