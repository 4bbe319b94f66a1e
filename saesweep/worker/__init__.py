"""What one device does: it trains, measures, keeps its place and exports. It knows no policy, no study and no board."""
