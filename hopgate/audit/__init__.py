"""thin"""
