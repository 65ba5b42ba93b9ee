"""Paper trading: a trained run at work on an account that survives crashes, lying brokers and wrong clocks."""
