"""The commands of the `robustmm` program, one file each; `robustmm.cli` names them."""
