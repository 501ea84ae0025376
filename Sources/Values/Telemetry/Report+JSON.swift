import Foundation

extension Report {
    /// Writes every field, with null for one that is nil, so that every report has the same keys.
    ///
    /// - Throws: the encoder's error.
    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(schema, forKey: .schema)
        try container.encode(kind, forKey: .kind)
        try container.encode(result, forKey: .result)
        try container.encode(error, forKey: .error)
        try container.encode(pageSize, forKey: .pageSize)
        try container.encode(memoryBytes, forKey: .memoryBytes)
        try container.encode(runsOn, forKey: .runsOn)
        try container.encode(source, forKey: .source)
        try container.encode(destination, forKey: .destination)
        try container.encode(workload, forKey: .workload)
        try container.encode(downtime, forKey: .downtime)
        try container.encode(switchover, forKey: .switchover)
        try container.encode(total, forKey: .total)
        try container.encode(pages, forKey: .pages)
        try container.encode(compression, forKey: .compression)
        try container.encode(stall, forKey: .stall)
        try container.encode(stallOrigin, forKey: .stallOrigin)
        try container.encode(threads, forKey: .threads)
        try container.encode(waiting, forKey: .waiting)
        try container.encode(service, forKey: .service)
        try container.encode(floor, forKey: .floor)
        try container.encode(course, forKey: .course)
        try container.encode(distribution, forKey: .distribution)
        try container.encode(arrivals, forKey: .arrivals)
        try container.encode(pushLanes, forKey: .pushLanes)
        try container.encode(throughput, forKey: .throughput)
        try container.encode(verify, forKey: .verify)
    }

    /// The report as one JSON object on one line, with its keys in alphabetical order.
    ///
    /// - Throws: `EncodingError` if a number is not finite.
    package func json() throws -> String {
        try JSONLine.encode(self)
    }
}
