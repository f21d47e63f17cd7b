"""Builds model packages of published weights, which are in no release of Darkroom: `python -m pretrained imagenet`."""
