"""What the services of this project share: responses, uploads, keys, HTML."""
