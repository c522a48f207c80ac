"""The commands, by what they are for; ``cli`` names them and turns mistakes into sentences."""
