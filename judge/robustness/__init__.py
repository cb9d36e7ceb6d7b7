"""judge.robustness"""
