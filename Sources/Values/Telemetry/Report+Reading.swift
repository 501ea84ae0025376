package import Foundation
import Outside

extension Report {
    /// Why a text is no report that this release reads.
    package struct Unreadable: Error, Hashable, Sendable, CustomStringConvertible {
        /// The reason, which continues the name of a file and a colon.
        package let description: String
    }

    /// The format alone, which is read before the fields that belong to it.
    private struct Format: Decodable {
        var schema: String
    }

    /// Reads a report that a release of Pageferry has written.
    ///
    /// - Parameter json: the JSON text, from outside.
    package init(json: Data) throws(Unreadable) {
        do {
            let format = try JSONDecoder().decode(Format.self, from: json)
            guard format.schema == Report().schema else {
                throw Unreadable(description: "its format is \(format.schema), and not \(Report().schema)")
            }
            self = try JSONDecoder().decode(Report.self, from: json)
        } catch let error as Unreadable {
            throw error
        } catch DecodingError.keyNotFound(let key, let context) {
            let path = (context.codingPath + [key]).map(\.stringValue).joined(separator: ".")
            throw Unreadable(description: "it has no field \(path), which every report has")
        } catch DecodingError.typeMismatch(_, let context), DecodingError.valueNotFound(_, let context) {
            let field = Report.name(context.codingPath)
            throw Unreadable(description: "its field \(field) is not of the type that it has in a report")
        } catch {
            // The decoder's own words are about its input, not about a file.
            throw Unreadable(description: "its JSON is cut off or broken")
        }
        guard distribution?.isSound != false, arrivals?.isSound != false else {
            throw Unreadable(description: "its histogram or its times of arrival are out of bounds")
        }
    }

    private static func name(_ path: [any CodingKey]) -> String {
        path.isEmpty ? "at the top" : path.map(\.stringValue).joined(separator: ".")
    }
}

extension Report.Distribution {
    /// Whether all numbers are within bounds; an agent or a file may give any.
    package var isSound: Bool {
        let areSound = [stall, service].joined().allSatisfy { part in
            part.count == 2 && part.allSatisfy { (0...1e15).contains($0) }
        }
        return areSound && stall.count <= 1000 && service.count <= 1000 && (1...128).contains(perOctave)
    }
}

extension Report.Arrivals {
    /// Whether the regions have exactly the cells that have times, and no more than a grid has.
    package var isSound: Bool {
        guard at.count <= 2 * PageGrid.mostCells, regions.count <= at.count else { return false }
        var next = 0
        for region in regions {
            guard region.firstCell == next, (0...at.count).contains(region.cells) else { return false }
            guard (0...1 << 48).contains(region.pages), (1...1 << 30).contains(region.pageSize) else { return false }
            next = (Untrusted(next) + Untrusted(region.cells)).clamped(to: 0...Int.max)
        }
        return next == at.count && (1...1 << 48).contains(pagesPerCell) && at.allSatisfy { $0 ?? 0 <= 1 << 48 }
    }
}
