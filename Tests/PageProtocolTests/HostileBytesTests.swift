import PageProtocol
import Testing

/// Any bytes give a typed error with a one-line text, or a value that encodes to the same bytes, and never a trap.
@Suite struct HostileBytesTests {
    private func judge(_ kind: FrameKind, _ payload: [UInt8]) -> Bool {
        let frame: [UInt8]
        do {
            if kind == .join {
                guard case .join(let join) = try decodeOpening(kind, payload) else { return false }
                frame = join.encode()
            } else {
                frame = try decodeControl(kind, payload).encode()
            }
        } catch {
            let text = error.description
            return !text.isEmpty && !text.contains(where: \.isNewline)
        }
        return frame == header(length: UInt32(payload.count), kind: kind.rawValue) + payload
    }

    private func judgeLane(_ bytes: [UInt8], _ table: RegionTable) -> Bool {
        do {
            let frame = try decodeLane(bytes)
            guard encoded(frame) == bytes else { return false }
            let extent = try table.extent(of: frame)
            let bound = max(1 << 20, UInt64(table.pageSize(ofRegion: Int(frame.run.region))))
            return extent.byteCount <= bound || frame.kind == .zeroes
        } catch {
            return !error.description.isEmpty
        }
    }

    @Test(.timeLimit(.minutes(2)), arguments: Samples.small)
    func aFlippedBitNeverTraps(_ message: ControlMessage) throws {
        let frame = try message.encode()
        for bit in 0..<(frame.count * 8) {
            var flipped = frame
            flipped[bit / 8] ^= 1 << UInt8(bit % 8)
            guard bit >= 64 else {
                let expected = try? decodeControlHeader(Array(flipped.prefix(8)))
                #expect(expected.map { $0.length <= 1 << 20 } ?? true)
                continue
            }
            #expect(judge(message.kind, Array(flipped.dropFirst(8))), "bit \(bit)")
        }
    }

    @Test(.timeLimit(.minutes(2)))
    func aFlippedBitInALaneFrameNeverTraps() throws {
        let table = try RegionTable([Samples.ram, Samples.high])
        for frame in LaneFrameTests.frames {
            let sound = encoded(frame)
            for bit in 0..<(sound.count * 8) {
                var flipped = sound
                flipped[bit / 8] ^= 1 << UInt8(bit % 8)
                #expect(judgeLane(flipped, table), "bit \(bit) of \(frame)")
            }
        }
    }

    @Test(.timeLimit(.minutes(2)))
    func seededRandomBytesNeverTrap() throws {
        var generator = SeededGenerator(state: 0x5047_4659)
        let table = try RegionTable([Samples.ram, Samples.high])
        let kinds = FrameKind.allCases.filter { $0.isControl || $0 == .join }
        let frames = try Samples.small.map { (kind: $0.kind, payload: Array(try $0.encode().dropFirst(8))) }
        var failures = 0
        for round in 0..<100_000 {
            switch round % 4 {
            case 0:
                let count = Int.random(in: 0...24, using: &generator)
                let bytes = generator.bytes(count)
                _ = try? decodeControlHeader(bytes)
                _ = try? OpeningFrame.decodeHeader(bytes.span.bytes)
                if !judgeLane(bytes, table) { failures += 1 }
            case 1:
                guard let kind = kinds.randomElement(using: &generator) else { continue }
                let count = Int.random(in: 0...200, using: &generator)
                if !judge(kind, generator.bytes(count)) { failures += 1 }
            case 2:
                // Overwrite a few bytes of a sound payload, or cut it off, or lengthen it.
                guard var (kind, payload) = frames.randomElement(using: &generator) else { continue }
                if payload.isEmpty { kind = .ping }
                for _ in 0..<Int.random(in: 0...4, using: &generator) where !payload.isEmpty {
                    let index = Int.random(in: payload.indices, using: &generator)
                    payload[index] = [0, 1, 0x7f, 0x80, 0xff].randomElement(using: &generator) ?? 0
                }
                if Bool.random(using: &generator) { payload.append(UInt8.random(in: 0...255, using: &generator)) }
                if Bool.random(using: &generator) { payload.removeLast(min(payload.count, round & 3)) }
                if !judge(kind, payload) { failures += 1 }
            default:
                // Take a lane kind with a random run near the table's bounds.
                let kind = UInt16.random(in: 0x40...0x4a, using: &generator)
                let length = UInt32.random(in: 0...2, using: &generator) * 4096 + 16
                let run =
                    bytes(UInt32.random(in: 0...3, using: &generator))
                    + bytes(UInt32.random(in: 0...300, using: &generator))
                    + bytes(UInt64.random(in: 32500...33000, using: &generator) &* UInt64(round & 4))
                if !judgeLane(header(length: length, kind: kind) + run, table) { failures += 1 }
            }
        }
        #expect(failures == 0)
    }
}
