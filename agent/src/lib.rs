//! headwater-agent.
