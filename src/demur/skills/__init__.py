"""Skills in words: a frozen model learns from a context by what it writes down.

loop       the iterations, and the replay that chooses among them
roles      what each of the five roles is shown, and how it is read
notes      rules for four of them on the embedded world's notes
calls      the journal that makes a run resumable at any call
replay     which iteration's skills were the best
skillset   skills as Markdown files
"""
