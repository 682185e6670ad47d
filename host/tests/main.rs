//! Tests of the library through what it exports: one program, which compiles the component once.

mod component;
mod layer;
mod stores;
mod support;
mod turns;
mod twin;
