"""Volumetric U-Nets of Yamazaki, Rathour and Le (2021): invertible ones that train in little memory, and the plain one."""
