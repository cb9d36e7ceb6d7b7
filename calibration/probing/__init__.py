"""Does a judge notice what was spoiled, beyond what the surface of the text gives away?"""
