/// Checks of text on the wire: UTF-8 of bounded length without control characters.
///
/// A peer's text therefore stays on one line and cannot control a terminal.
enum Text {
    static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value)
    }

    static func validate(
        _ text: String,
        frame: FrameKind,
        field: String,
        allowed: ClosedRange<Int>
    ) throws(ProtocolError) {
        let count = text.utf8.count
        guard allowed.contains(count) else {
            throw .outOfBounds(
                frame: frame,
                field: "length of \(field)",
                found: UInt64(count),
                allowed: UInt64(allowed.lowerBound)...UInt64(allowed.upperBound)
            )
        }
        if let control = text.unicodeScalars.first(where: isControl) {
            throw .controlCharacter(frame: frame, field: field, found: control.value)
        }
    }

    /// Returns the reason with spaces for control characters, cut off before the character that exceeds 1024 bytes.
    static func fitReason(_ reason: String) -> String {
        var fitted = String.UnicodeScalarView()
        var count = 0
        for scalar in reason.unicodeScalars {
            let kept = isControl(scalar) ? " " : scalar
            count += UTF8.width(kept)
            if count > Wire.maxTextBytes { break }
            fitted.append(kept)
        }
        return String(fitted)
    }
}
