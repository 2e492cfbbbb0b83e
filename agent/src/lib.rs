//! The agent: reads sensors, makes their samples durable on its own disk, and sends them until the
//! collector says that they are in the lake.

pub mod pipeline;
