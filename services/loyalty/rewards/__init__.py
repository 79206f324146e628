"""What points are good for: rewards, pools of codes, and the codes that members got."""
