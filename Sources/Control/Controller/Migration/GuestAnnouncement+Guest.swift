import Guest
import PageProtocol
import Telemetry

extension GuestAnnouncement {
    /// Announces a guest whose regions follow each other without gaps in the guest's address space.
    init(_ description: GuestDescription) {
        var address: UInt64 = 0
        var shapes: [RegionShape] = []
        for region in description.regions {
            shapes.append(
                RegionShape(
                    name: region.name,
                    guestAddress: address,
                    pageSize: UInt32(region.pageSize),
                    pageCount: UInt64(region.pageCount)
                )
            )
            address += UInt64(region.pageSize) * UInt64(region.pageCount)
        }
        self.init(kind: description.kind, configuration: description.configuration, regions: shapes)
    }

    /// Counts for the pages of the regions by their place, which are zero.
    var grid: PageGrid { PageGrid(shapes) }

    /// The name, the number of pages, and the size of a page of each region.
    var shapes: [(name: String, pageCount: Int, pageSize: Int)] {
        regions.map { ($0.name, Int($0.pageCount), Int($0.pageSize)) }
    }

    /// The description from which a landing prepares memory.
    var description: GuestDescription {
        GuestDescription(
            kind: kind,
            name: kind,
            configuration: configuration,
            regions: regions.map {
                GuestDescription.Region(name: $0.name, pageSize: Int($0.pageSize), pageCount: Int($0.pageCount))
            }
        )
    }
}
