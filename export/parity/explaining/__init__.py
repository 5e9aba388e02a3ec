"""Where a difference begins: the stage of the export, and the layer."""
