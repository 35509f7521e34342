//! Paths of policies over three answers, drawn in the triangle of all policies.

use std::path::Path as FilePath;

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{Error, Path, Result, Show};

const WIDTH: u32 = 1020;
const PANEL: u32 = 340;
const INK: RGBColor = RGBColor(40, 44, 52);
const PALE: RGBColor = RGBColor(190, 195, 204);
const LINE: RGBColor = RGBColor(31, 111, 180);
const GOAL: RGBColor = RGBColor(205, 60, 45);

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Plot(error.to_string())
}

/// Places a policy in its panel, in pixels.
fn place(policy: &[f64]) -> (i32, i32) {
    let (left, bottom, side) = (40.0, 290.0, 260.0);
    let x = policy[1] + policy[2] / 2.0;
    let y = policy[2] * 3f64.sqrt() / 2.0;
    ((left + x * side).round() as i32, (bottom - y * side).round() as i32)
}

/// Draws every path of a show into an SVG file, one triangle a method: the path, where it ended and where theory puts it.
///
/// # Errors
/// [`Error::Plot`] if the file cannot be written.
pub fn draw(show: &Show, file: &FilePath) -> Result<()> {
    let columns = WIDTH / PANEL;
    let rows = (show.paths.len() as u32).div_ceil(columns);
    let area = SVGBackend::new(file, (WIDTH, rows * PANEL)).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    for (panel, (name, path, goal)) in area.split_evenly((rows as usize, columns as usize)).iter().zip(&show.paths) {
        triangle(panel, name)?;
        trace(panel, path, goal, name.starts_with("sppo"))?;
    }
    area.present().map_err(failed)
}

fn triangle(panel: &DrawingArea<SVGBackend<'_>, Shift>, name: &str) -> Result<()> {
    let corners = [vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0], vec![0.0, 0.0, 1.0]];
    let outline = corners.iter().map(|corner| place(corner)).collect::<Vec<_>>();
    panel.draw(&Polygon::new(outline.clone(), PALE.mix(0.15))).map_err(failed)?;
    panel.draw(&PathElement::new(vec![outline[0], outline[1], outline[2], outline[0]], PALE)).map_err(failed)?;
    let text = |size: i32, color: &RGBColor| ("sans-serif", size).into_font().color(color);
    let label = text(13, &INK).pos(Pos::new(HPos::Center, VPos::Center));
    for (answer, (x, y)) in outline.into_iter().enumerate() {
        let beside = if answer == 2 { (x, y - 12) } else { (x, y + 14) };
        panel.draw(&Text::new(format!("{answer}"), beside, label.clone())).map_err(failed)?;
    }
    let title = text(16, &INK).pos(Pos::new(HPos::Left, VPos::Center));
    panel.draw(&Text::new(name.to_owned(), (14, 18), title)).map_err(failed)
}

/// Draws a path; of SPPO, whose last policies orbit, the average is the end.
fn trace(panel: &DrawingArea<SVGBackend<'_>, Shift>, path: &Path, goal: &[f64], by_average: bool) -> Result<()> {
    let points: Vec<(i32, i32)> = path.policies.iter().map(|policy| place(policy)).collect();
    let end = place(if by_average { &path.average } else { &path.last });
    let start = points[0];
    panel.draw(&PathElement::new(points, LINE.mix(0.8).stroke_width(1))).map_err(failed)?;
    panel.draw(&Circle::new(start, 3, INK.filled())).map_err(failed)?;
    panel.draw(&Circle::new(place(goal), 7, GOAL.stroke_width(2))).map_err(failed)?;
    panel.draw(&Circle::new(end, 3, LINE.filled())).map_err(failed)
}
