"""unilmctl inspect: looks into masks, models, token stores and runs."""
