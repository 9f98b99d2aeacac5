"""SFT, reward models, DPO and PPO as jobs."""
