"""Several hosts that train one model together: a supervisor in each container, and MPI between the ranks."""
