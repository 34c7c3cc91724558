"""Train design points: expand a grid, estimate its cost, start workers, watch them, collect what they trained."""
