"""Small models that this project trained itself: what they see, how they learn, how well they do."""
