import ArgumentParser

/// A number of bytes as people write it: `4096`, `64KiB`, `256MiB`, `1GiB`.
struct ByteCount: ExpressibleByArgument, Sendable {
    let bytes: Int

    init(bytes: Int) {
        self.bytes = bytes
    }

    init?(argument: String) {
        guard let (number, unit) = split(argument) else { return nil }
        let factors: [Substring: Double] = ["": 1, "B": 1, "KiB": 0x1p10, "MiB": 0x1p20, "GiB": 0x1p30, "TiB": 0x1p40]
        guard let factor = factors[unit], number > 0, number * factor < 0x1p62 else { return nil }
        bytes = Int(number * factor)
    }

    /// The number in the largest unit that holds it whole.
    var defaultValueDescription: String {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        guard let (shift, unit) = units.first(where: { bytes > 0 && bytes & (1 << $0.0 - 1) == 0 }) else {
            return "\(bytes)"
        }
        return "\(bytes >> shift)\(unit)"
    }
}

/// Bytes a second as people write them: `0` for no limit, or a number of bytes.
struct Bandwidth: ExpressibleByArgument, Sendable {
    let bytesPerSecond: Int

    init(bytesPerSecond: Int) {
        self.bytesPerSecond = bytesPerSecond
    }

    init?(argument: String) {
        if argument == "0" {
            bytesPerSecond = 0
        } else {
            guard let count = ByteCount(argument: argument), count.bytes > 0 else { return nil }
            bytesPerSecond = count.bytes
        }
    }

    var defaultValueDescription: String { bytesPerSecond == 0 ? "0" : "\(bytesPerSecond)" }
}

/// A time as people write it: `0`, `500ns`, `10us`, `1ms`, `2s`.
struct TimeSpan: ExpressibleByArgument, Sendable, CustomStringConvertible {
    let nanoseconds: UInt64

    init(nanoseconds: UInt64) {
        self.nanoseconds = nanoseconds
    }

    init?(argument: String) {
        guard let (number, unit) = split(argument) else { return nil }
        let factors: [Substring: Double] = ["ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9]
        if number == 0, unit.isEmpty {
            nanoseconds = 0
        } else {
            guard let factor = factors[unit], number >= 0, number * factor < 1e18 else { return nil }
            nanoseconds = UInt64(number * factor)
        }
    }

    /// The same time as the standard library has it.
    var duration: Duration { .nanoseconds(Int64(nanoseconds)) }

    var description: String {
        let units: [(UInt64, String)] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1000, "us"), (1, "ns")]
        guard let (factor, unit) = units.first(where: { nanoseconds > 0 && nanoseconds % $0.0 == 0 }) else {
            return "0"
        }
        return "\(nanoseconds / factor)\(unit)"
    }
}

/// A plain decimal number and the unit that follows it.
private func split(_ text: String) -> (number: Double, unit: Substring)? {
    let end = text.firstIndex { !($0.isASCII && ($0.isNumber || $0 == ".")) } ?? text.endIndex
    guard let number = Double(text[..<end]) else { return nil }
    return (number, text[end...])
}
