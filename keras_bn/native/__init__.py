"""The layer's own kernel for CPUs, in C++: two passes forward, two backward. See kernel.h."""
