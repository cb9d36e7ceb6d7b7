"""judge.models"""
