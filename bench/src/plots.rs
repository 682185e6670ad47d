//! Bar charts as SVG.

use std::fmt::{Result, Write as _};

/// Bars that are compared with each other.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// The value as text.
    pub(crate) shown: String,
    pub(crate) colour: &'static str,
}

/// The layout of a panel, in pixels.
const WIDTH: usize = 480;
const NAMES: usize = 176;
const LONGEST: f64 = 196.0;
const HEAD: usize = 40;
const BAR: usize = 26;
const GAP: usize = 24;

/// Draws the panels in two columns, on white because pages may be dark.
pub(crate) fn svg(title: &str, panels: &[Panel]) -> std::result::Result<String, std::fmt::Error> {
    let most = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or_default();
    let height = HEAD + most * BAR + GAP;
    let columns = panels.len().clamp(1, 2);
    let (all_width, all_height) =
        (columns * WIDTH + GAP, HEAD + 12 + panels.len().div_ceil(2) * height);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {all_width} {all_height}\" \
         width=\"{all_width}\" height=\"{all_height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#111827\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{GAP}\" y=\"32\" font-size=\"17\" font-weight=\"600\">{title}</text>\n",
    );
    for (at, panel) in panels.iter().enumerate() {
        let (x, y) = (GAP + at % 2 * WIDTH, HEAD + 12 + at / 2 * height);
        writeln!(svg, "<g transform=\"translate({x} {y})\">")?;
        panel.draw(&mut svg)?;
        svg += "</g>\n";
    }
    svg += "</svg>\n";
    Ok(svg)
}

impl Panel {
    fn draw(&self, svg: &mut String) -> Result {
        let title = &self.title;
        writeln!(svg, "<text y=\"22\" font-weight=\"600\" fill=\"#374151\">{title}</text>")?;
        let longest = self.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        for (at, Bar { name, value, shown, colour }) in self.bars.iter().enumerate() {
            let y = HEAD + at * BAR - 4;
            let (text, width) = (y + 14, (value / longest * LONGEST).max(1.0));
            let (before, after) = (NAMES - 8, NAMES as f64 + width + 6.0);
            writeln!(
                svg,
                "<text x=\"{before}\" y=\"{text}\" text-anchor=\"end\">{name}</text>\
                 <rect x=\"{NAMES}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" rx=\"2\" \
                 fill=\"{colour}\"/><text x=\"{after:.1}\" y=\"{text}\">{shown}</text>"
            )?;
        }
        Ok(())
    }
}
