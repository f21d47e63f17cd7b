"""The two common designs that Darkroom is compared with, each written as its tutorial has it."""
