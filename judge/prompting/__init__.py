"""judge.prompting"""
