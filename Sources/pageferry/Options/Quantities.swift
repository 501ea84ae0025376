import ArgumentParser

/// A number of bytes, written with its unit: `512B`, `64KiB`, `256MiB`, `1GiB`.
struct ByteCount: Codable, Sendable {
    let bytes: Int

    init(bytes: Int) {
        self.bytes = bytes
    }

    private static let form = "write a number with its unit: B, KiB, MiB, GiB or TiB"

    /// Reads a size, which is more than 0 and less than 2^62 bytes.
    ///
    /// - Throws: `ValidationError` that describes the valid form.
    init(_ text: String) throws {
        guard !text.hasPrefix("-") else { throw ValidationError("a size must be more than 0, such as 1GiB") }
        guard let (number, unit) = split(text) else { throw ValidationError("\(ByteCount.form), such as 1GiB") }
        let factors: [Substring: Double] = ["B": 1, "KiB": 0x1p10, "MiB": 0x1p20, "GiB": 0x1p30, "TiB": 0x1p40]
        guard number > 0 else { throw ValidationError("a size must be more than 0, such as 1GiB") }
        guard let factor = factors[unit] else {
            throw ValidationError(ByteCount.form + ByteCount.remedy(number, text.dropLast(unit.count), unit))
        }
        guard number * factor < 0x1p62 else { throw ValidationError("a size must be below 4194304TiB, such as 1GiB") }
        bytes = Int(number * factor)
    }

    /// Returns the end of an error message: the size that a text with an unknown unit, or without one, may mean.
    private static func remedy(_ value: Double, _ number: Substring, _ unit: Substring) -> String {
        if unit.isEmpty {
            // A number of bytes is probably a multiple of the page size; another number probably lacks MiB.
            guard value < 0x1p62, value.truncatingRemainder(dividingBy: 4096) == 0 else { return "; use \(number)MiB" }
            return "; use \(ByteCount(bytes: Int(value))) for that many bytes, or \(number)MiB"
        }
        if unit.lowercased().contains("bit") { return "; 8 bits are a byte" }
        let meant = "KMGT".first { unit.uppercased().hasPrefix("\($0)") }
        return meant.map { "; use \(number)\($0)iB" } ?? ", such as 1GiB"
    }
}

extension ByteCount: CustomStringConvertible {
    /// The size in the largest unit in which it is a whole number.
    var description: String {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        guard let (shift, unit) = units.first(where: { bytes > 0 && bytes & (1 << $0.0 - 1) == 0 }) else {
            return "\(bytes)B"
        }
        return "\(bytes >> shift)\(unit)"
    }
}

/// A limit in bytes per second: a size such as `100MiB`, or `0` for no limit.
struct Bandwidth: Codable, Sendable, CustomStringConvertible {
    let bytesPerSecond: Int

    init(bytesPerSecond: Int) {
        self.bytesPerSecond = bytesPerSecond
    }

    /// Reads a size, or `0`.
    ///
    /// - Throws: `ValidationError` that describes the valid form.
    init(_ text: String) throws {
        guard !text.hasPrefix("-") else {
            throw ValidationError("a limit must not be negative; write 0 for no limit, or a size such as 100MiB")
        }
        bytesPerSecond = text == "0" ? 0 : try ByteCount(text).bytes
    }

    var description: String { bytesPerSecond == 0 ? "0" : "\(ByteCount(bytes: bytesPerSecond))" }
}

/// A time, written with its unit unless it is 0: `0`, `500ns`, `10us`, `1ms`, `2s`.
struct TimeSpan: ExpressibleByArgument, Codable, Sendable, CustomStringConvertible {
    let nanoseconds: UInt64

    init(nanoseconds: UInt64) {
        self.nanoseconds = nanoseconds
    }

    /// Makes a time of a duration, which is not negative.
    init(_ duration: Duration) {
        nanoseconds = UInt64(max(0, duration / .nanoseconds(1)))
    }

    private static let factors: [Substring: Double] = ["ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9]

    init?(argument: String) {
        guard let (number, unit) = split(argument) else { return nil }
        if number == 0, unit.isEmpty {
            nanoseconds = 0
        } else {
            guard let factor = TimeSpan.factors[unit], number >= 0, number * factor < 1e18 else { return nil }
            nanoseconds = UInt64(number * factor)
        }
    }

    /// Returns the end of an error message: the time that a text with an unknown unit, or without one, may mean.
    ///
    /// Nil if that cannot be guessed.
    ///
    /// - Parameter usual: the unit of a text without one.
    static func remedy(_ text: String, usual: String = "s") -> String? {
        guard let (number, unit) = split(text), factors[unit] == nil else { return nil }
        let digits = text.dropLast(unit.count)
        let seconds: Double
        switch unit.lowercased() {
        case "": return "; use \(digits)\(usual)"
        case "s", "sec", "second", "seconds": return "; use \(digits)s"
        case "ms", "msec": return "; use \(digits)ms"
        case "µs", "us", "usec": return "; use \(digits)us"
        case "m", "min", "minute", "minutes": seconds = number * 60
        case "h", "hour", "hours": seconds = number * 3600
        default: return nil
        }
        guard seconds < 1e9, seconds == seconds.rounded() else { return nil }
        return "; use \(Int(seconds))s"
    }

    /// The same time as a `Duration`.
    var duration: Duration { .nanoseconds(Int64(nanoseconds)) }

    var description: String {
        let units: [(UInt64, String)] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1000, "us"), (1, "ns")]
        guard let (factor, unit) = units.first(where: { nanoseconds > 0 && nanoseconds % $0.0 == 0 }) else {
            return "0"
        }
        return "\(nanoseconds / factor)\(unit)"
    }
}

/// Splits a text into a plain decimal number and the unit that follows it; nil if there is no number.
private func split(_ text: String) -> (number: Double, unit: Substring)? {
    let end = text.firstIndex { !($0.isASCII && ($0.isNumber || $0 == ".")) } ?? text.endIndex
    guard let number = Double(text[..<end]) else { return nil }
    return (number, text[end...])
}
