"""Invertible volumetric U-Nets of Yamazaki, Rathour and Le (2021), which train in little memory, and the plain one."""
