"""judge.data"""
