extension Duration {
    /// The duration as text for people: `300 ms`, `1.5 s`, `12 s`.
    ///
    /// Smaller units are cut off, but a duration above 0 is never shown as 0.
    package var text: String {
        guard self > .zero else { return "0 s" }
        let (seconds, attoseconds) = components
        let milliseconds = attoseconds / 1_000_000_000_000_000
        if seconds == 0 { return "\(max(1, milliseconds)) ms" }
        let tenths = seconds < 10 ? milliseconds / 100 : 0
        return tenths == 0 ? "\(seconds) s" : "\(seconds).\(tenths) s"
    }
}
