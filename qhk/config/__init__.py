"""The catalogue of YAML files, its composition with Hydra, and what to write where Hydra refuses."""
