"""calibration.stats"""
