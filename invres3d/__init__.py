"""Invertible 3-D U-Nets that train in little memory (Yamazaki, Rathour and Le 2021), and a plain 3-D U-Net."""
