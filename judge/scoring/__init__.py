"""judge.scoring"""
