"""The dialogues that are judged: reading files of them, sorting them into batches, fetching ChatAnime."""
