"""Volumetric U-Nets of Yamazaki, Rathour and Le (2021): so far the 3-D U-Net that the paper compares with."""
